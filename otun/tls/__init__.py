"""TLS, as much of it as Python's ssl leaves to others: what a client says before anybody has answered."""
