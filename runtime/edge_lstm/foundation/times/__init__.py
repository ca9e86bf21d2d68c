"""Times: texts, numbers, zones and clocks."""
