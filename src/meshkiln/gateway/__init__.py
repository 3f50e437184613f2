"""The gateway: HTTP in front of the kiln, with durable jobs. It never decodes a picture and never runs a stage."""
