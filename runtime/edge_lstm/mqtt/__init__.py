"""The MQTT connection: address, credentials, clients, send window, and a broker for tests and demos."""
