"""An operator's commands: parsed, checked, applied in their order among readings, and answered."""
