"""The machine this runs on: known boards, processor and memory, power sensors."""
