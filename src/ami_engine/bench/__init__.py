"""The benchmark suite behind `ami bench`: cases that check their answer first, and ratios measured in one run."""
