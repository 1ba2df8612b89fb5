"""The gRPC server and the channel that needs no socket."""
