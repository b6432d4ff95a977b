"""Judges a pair of models: what its files say, what it costs here, when it pays, what to do.

    report = examine(target, drafter, (options, draft_options), texts, free_memory())
    report = replace(report, trial=tried(session, texts))  # if both have weights and fit
    print(recommendation(report))

Plain data and functions; nothing is printed here.
"""
