"""The Ray Serve application: HTTP and gRPC ingress, router, replicas, command line."""
