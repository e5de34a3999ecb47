"""Steps that are not computed: runners of the trunk that guess what it would give from what it gave before."""
