"""TLS: whom to believe, which certificate to show, and where certificates come from."""
