"""The wire format of the gRPC service and the code generated from it."""
