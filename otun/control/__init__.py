"""The control protocol: what client and server tell each other about a tunnel.  No I/O here, and no clock."""
