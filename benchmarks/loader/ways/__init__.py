"""Ways from paths to batches: ours, the peers, and the limit.

One file each, with one function:

    open_way(corpus, cores, **settings) -> epoch

which gets ready whatever can be (imports, graphs, worker processes, packed files), and returns what delivers every
image once each time it is called: a function of no arguments that yields uint8 batches of at most BATCH x SIZE x SIZE
x 3, in any order. A batch is read before the next is asked for. Where batches do not come to Python (`limit`,
`ours_fit`), `open_way` returns a function of a `Seen` instead (see measure.py), and the file says `OBSERVES = True`.
"""
