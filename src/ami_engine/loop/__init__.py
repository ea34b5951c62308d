"""The one loop: it owns time, I/O and the order of work; everything it calls is told what it needs to know."""
