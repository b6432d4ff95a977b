"""Three hundred questions about code, for streams and for `edgespec adapt train`.

`python tests/adapt/code_questions.py > FILE` writes them as JSON lines: a hundred small tasks, each
asked for in three ways, in an order that is always the same and keeps the ways mixed. The tasks of
the last LAST questions do not occur before.
"""

from __future__ import annotations

import json
import random

TASKS = """
reverses the words of a sentence but keeps the spaces between them
finds the two numbers of a list that add up to a given sum
tells whether a string is a palindrome, ignoring case and punctuation
counts how often each word occurs in a text
merges two sorted lists into one sorted list
removes duplicates from a list and keeps the order
flattens a list of lists of any depth
finds the most frequent element of a list
computes the greatest common divisor of two numbers
lists all prime numbers below n
converts a Roman numeral to a number
converts a number to its binary digits without using built-in functions
rotates a matrix by ninety degrees
transposes a table given as a list of rows
computes the running average of a stream of numbers
finds the longest common prefix of a list of strings
checks whether brackets of three kinds are balanced
evaluates an expression in reverse Polish notation
implements binary search on a sorted list
finds the median of a list of numbers
groups words that are anagrams of each other
computes the Levenshtein distance of two strings
generates all permutations of a string
generates all subsets of a set
sorts a list of dictionaries by two keys
parses a date such as 2024-03-09 and tells the day of the week
adds business days to a date, leaving weekends out
formats a number of bytes as kB, MB or GB
parses a query string of a URL into a dictionary
checks whether an e-mail address looks valid
masks all but the last four digits of a card number
splits a text into lines of at most n characters without breaking words
counts the lines, words and characters of a file
reads a CSV file and sums one of its columns
writes a list of dictionaries to a CSV file
finds the largest files in a folder and its subfolders
renames all files of a folder to lower case
watches a file and prints new lines as they are written
computes the SHA-256 of a large file in parts
compares two folders and lists the files that differ
retries a function up to three times with growing pauses
caches the results of a function for a number of seconds
measures how long a function takes and logs it
limits how often a function may be called per minute
runs several downloads at once and collects their results
reads a JSON file and reports missing keys with their paths
merges two nested dictionaries, the second one winning
turns a nested dictionary into one with dotted keys
validates a dictionary against required keys and types
converts names from camelCase to snake_case
implements a stack that also tells its minimum in constant time
implements a queue with two stacks
implements a linked list with append, remove and iteration
reverses a linked list in place
detects a cycle in a linked list
implements a binary search tree with insert and contains
computes the depth of a binary tree
prints a binary tree level by level
implements a trie with insert and prefix search
implements a least recently used cache
finds the shortest path in an unweighted graph
finds shortest paths with Dijkstra's algorithm
sorts the nodes of a directed graph topologically
finds the connected components of a graph
solves the knapsack problem with dynamic programming
finds the longest increasing subsequence
computes the n-th Fibonacci number in logarithmic time
counts the ways to climb n stairs with steps of one or two
finds the maximum sum of a contiguous part of a list
finds all places where a pattern occurs in a text
compresses a string by run lengths and restores it
encodes and decodes a text with a Caesar cipher
solves the Tower of Hanoi and prints the moves
solves a Sudoku by backtracking
places eight queens on a board
plays one step of Conway's Game of Life
draws a text histogram of a list of numbers
simulates rolling two dice and estimates the probability of seven
shuffles a list without the random module's shuffle
picks k random lines of a file of unknown length
computes the mean and standard deviation in one pass
fits a straight line to points by least squares
multiplies two matrices given as lists of rows
computes the determinant of a square matrix
approximates a square root by Newton's method
integrates a function numerically by Simpson's rule
finds a root of a function by bisection
converts temperatures between Celsius, Fahrenheit and Kelvin
converts an amount of money to words
computes the distance of two points on the globe
tokenizes an arithmetic expression
evaluates an arithmetic expression with parentheses
parses command line options with a few flags and a file name
formats a list of rows as an aligned text table
highlights the differences of two texts line by line
finds broken links in a Markdown file
extracts all e-mail addresses from a text
replaces placeholders such as {name} in a template
sends a request to an HTTP API and handles errors
serves a small JSON API with one endpoint
""".strip().split("\n")

WAYS = (
    "Write a Python function that {}.",
    "Write a JavaScript function that {}, and explain in two sentences how it works.",
    "Write a Python function that {}, with type hints and a docstring, and two tests for pytest.",
)


LAST = 51


def questions() -> list[str]:
    """All of them, mixed."""
    rng, n_last = random.Random(0), LAST // len(WAYS)
    tasks, out = rng.sample(TASKS, len(TASKS)), list[str]()
    for some in (tasks[n_last:], tasks[:n_last]):
        asked = [way.format(task) for task in some for way in WAYS]
        out += rng.sample(asked, len(asked))
    return out


if __name__ == "__main__":
    for question in questions():
        print(json.dumps({"prompt": question}))
