"""MQTT clients on top of paho."""
