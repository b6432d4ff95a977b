"""Text of several kinds to compare a graph with its original on: some 1,400 tokens.

TEXTS are read as they are, CHATS as the model's chat template has them.
"""

from __future__ import annotations

TEXTS = (
    # A story.
    "Once upon a time there was a little fox who lived at the edge of a dark wood. Every morning "
    "she walked down to the river to drink, and every morning the old heron told her a story. One "
    "day the heron was not there. The fox waited until the sun stood high, then she followed the "
    "bank upstream, past the mill and the broken bridge, until she heard somebody calling from the "
    'reeds. "I have hurt my wing," said the heron, "and I cannot reach the water." So the fox '
    "caught a fish for her, and then another, and from that day on it was the fox who had a story "
    "to tell.",
    # Facts.
    "A lighthouse warns ships of rocks and shallow water. The first ones were open fires on hills; "
    "later, towers of stone carried lamps that burned oil. A lens made of many rings of glass "
    "gathers the light into a beam that can be seen from thirty kilometres away. Each lighthouse "
    "flashes in its own rhythm, so that sailors know which one they see. Today most of them are "
    "run by machines, and many have been turned into museums or hotels.",
    # Sums.
    "To find the area of a circle, square its radius and multiply the result by pi. A circle with "
    "a radius of 3 metres therefore has an area of about 28.3 square metres. If a train leaves at "
    "9:40 and travels 150 kilometres at 60 kilometres an hour, the journey takes 150 / 60 = 2.5 "
    "hours, so it arrives at 12:10.",
    # Code.
    "def total(prices):\n    result = 0\n    for price in prices:\n        result += price\n"
    "    return result\n\n\nclass Stack:\n    def __init__(self):\n        self.items = []\n\n"
    "    def push(self, item):\n        self.items.append(item)\n\n    def pop(self):\n"
    "        if not self.items:\n            raise IndexError('pop from empty stack')\n"
    "        return self.items.pop()\n",
    "function debounce(action, delay) {\n  let timer = null;\n  return (...args) => {\n"
    "    clearTimeout(timer);\n    timer = setTimeout(() => action(...args), delay);\n  };\n}\n\n"
    "SELECT customers.name, COUNT(orders.id) AS n_orders\nFROM customers\n"
    "JOIN orders ON orders.customer_id = customers.id\nWHERE orders.year = 2023\n"
    "GROUP BY customers.name\nORDER BY n_orders DESC;\n",
    # Data.
    '{\n  "name": "Garden shed",\n  "price": 349.5,\n  "in_stock": true,\n  "sizes": [\n'
    '    {"width": 2.0, "depth": 1.5},\n    {"width": 3.0, "depth": 2.0}\n  ],\n'
    '  "tags": ["wood", "outdoor", "storage"]\n}\n',
    # A letter.
    "Dear Ms Keller,\n\nThank you for your message of 4 March. I am sorry that your parcel arrived "
    "late and that one of the cups was broken. We have sent you a new one today, free of charge; "
    "it should reach you by Friday. Please keep the broken cup, there is no need to return it.\n\n"
    "Kind regards,\nCustomer service\n",
)
CHATS = (
    (
        ("user", "What is the difference between weather and climate?"),
        (
            "assistant",
            "Weather is what happens in the atmosphere at a particular place and time: rain this "
            "afternoon, or a cold wind tomorrow. Climate is the average of the weather over many "
            "years, usually thirty. A single hot day says nothing about the climate, but a long "
            "row of hot summers does.",
        ),
        ("user", "Give me one example of each."),
        (
            "assistant",
            "Weather: it is snowing in Oslo today. Climate: winters in Oslo are cold, with an "
            "average temperature a little below freezing.",
        ),
    ),
    (
        ("system", "You are a helpful assistant that writes short, correct code."),
        ("user", "Write a Python function that checks whether a word is a palindrome."),
        (
            "assistant",
            "Here is a function that ignores upper and lower case:\n\n```python\n"
            "def is_palindrome(word):\n    word = word.lower()\n    return word == word[::-1]\n"
            "```\n\nIt compares the word with its reverse, which `word[::-1]` makes. For example, "
            '`is_palindrome("Level")` returns `True`.',
        ),
    ),
    (
        ("user", "Plan a simple dinner for four people with rice and vegetables."),
        (
            "assistant",
            "Here is a simple plan:\n\n1. **Rice**: cook 300 g of rice in 600 ml of salted water "
            "for about 15 minutes.\n2. **Vegetables**: cut two carrots, one pepper and a small "
            "broccoli, and fry them in a little oil for eight minutes.\n3. **Sauce**: mix three "
            "spoons of soy sauce with a spoon of honey and the juice of half a lemon.\n\nServe the "
            "vegetables on the rice and pour the sauce over them.",
        ),
    ),
    (
        (
            "user",
            "Summarise in one sentence: The town council met on Tuesday to discuss the old "
            "swimming pool. Repairs would cost two million euros, a new building almost six. After "
            "three hours the members agreed to ask the citizens in a vote next spring.",
        ),
        (
            "assistant",
            "The town council will let the citizens vote next spring on whether to repair the old "
            "swimming pool for two million euros or to build a new one for almost six.",
        ),
    ),
)
