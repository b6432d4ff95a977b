"""Running text of several kinds, to compare how vocabularies cut it: of no model's training."""

from __future__ import annotations

KINDS = "news, code, a letter, German"
NEWS = (
    "The harbour council voted 7-4 on Tuesday to rebuild the eastern pier, which a storm had "
    "damaged in February 2019. Engineers expect costs of $3.8 million, a third more than planned; "
    'Mayor Okonkwo-Reyes called the delay "regrettable, but hardly a surprise". Ferry operators '
    "must use the provisional landing until autumn, and inflation may still push prices up."
)
CODE = (
    "def median(values: list[float]) -> float:\n"
    '    """The middle one; of an even number the mean of two."""\n'
    "    ordered = sorted(values)\n"
    "    half, odd = divmod(len(ordered), 2)\n"
    "    if not ordered:\n"
    '        raise ValueError(f"expected at least 1 value, got {len(ordered)}")\n'
    "    return ordered[half] if odd else (ordered[half - 1] + ordered[half]) / 2\n"
)
LETTER = (
    "Dear Ms Whitcombe,\n\nthank you for your letter of 14 March. I'm afraid that we can't refund "
    "the deposit, since the cancellation reached us after the deadline in paragraph 5. We'd "
    "gladly move your booking to another weekend, though: just ring me at extension 208.\n\n"
    "Yours sincerely,\nTheodor Vance\n"
)
GERMAN = (
    "Gestern Abend haben wir lange überlegt, ob sich die Reise überhaupt lohnt. Das Wetter soll "
    "schlechter werden, und die Züge fahren wegen der Bauarbeiten nur noch stündlich. "
    "Schließlich einigten wir uns darauf, bis Samstag zu warten."
)
TEXTS = (NEWS, CODE, LETTER, GERMAN)
