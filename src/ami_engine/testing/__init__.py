"""What users test their own adapters with, and what the engine itself is tested with."""
