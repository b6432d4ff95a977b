"""Answers of a given form, drafted and verified under it: see `constrained` for the law.

`schema` writes a grammar for a JSON schema, with `pattern` and `number` for parts of it; `gbnf` and
`walk` read grammars for how short the rest may be; `ending` makes an answer end within its token
limit. Which token may follow is a backend's to say.
"""
