"""Worker processes: the zygote that forks them, and what runs one element in one of them.

These modules run in processes of their own (``openwhisk.worker.messages`` excepted, which both
sides share). They do not know the scheduler; ``openwhisk.invoker`` is their other side.
"""
