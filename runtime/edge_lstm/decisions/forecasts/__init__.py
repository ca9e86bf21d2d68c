"""What a device makes of the numbers of a forecast: corrections and intervals."""
