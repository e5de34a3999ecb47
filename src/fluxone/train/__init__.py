"""The trainer: one loop, objectives as rows, and runs that can be stopped and continued exactly.

All randomness of step `s` is drawn from a generator seeded by (seed, s), for the whole batch, and cut into
shares for the processes. So a run needs no random state in its checkpoint, and neither a restart nor the
number of processes changes what is trained.
"""
