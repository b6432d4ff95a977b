"""A conversation in a terminal: what is typed, what is drawn, and the commands between answers.

inline, block, wrap and markdown are pure (text in, styled characters out); screen draws them on a
terminal, plain writes them to anything else, line reads what is typed, charts draws numbers,
commands obeys lines that begin with "/", talk is a conversation under way, and loop is the loop.
"""
