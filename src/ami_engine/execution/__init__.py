"""Orders: their states, the quotes that become them, and the ways to a broker."""
