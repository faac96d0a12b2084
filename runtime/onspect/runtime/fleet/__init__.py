"""An overview of many lines, from the status that each publishes over MQTT."""
