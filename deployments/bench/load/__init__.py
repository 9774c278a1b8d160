"""Load on a service, from outside, as clients make it."""
