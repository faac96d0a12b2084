"""Many lines at a glance, from what each publishes of itself over MQTT."""
