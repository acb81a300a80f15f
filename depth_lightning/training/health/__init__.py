"""Whether a run learns: the check before it, the watch over every step, the record of a bad one."""
