"""The public REST API: HTTP in front, the core's gRPC stubs behind."""
