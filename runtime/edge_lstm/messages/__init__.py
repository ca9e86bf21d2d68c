"""MQTT payloads to readings, and predictions to MQTT payloads."""
