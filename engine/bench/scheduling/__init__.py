"""What waiting requests and long prompts cost the requests that run beside them."""
