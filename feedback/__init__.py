"""The memory of the studio: prompts, generations, judgments, datasets and runs, and how to reach them.

Nothing here imports torch, gradio or the network; ``training`` and ``studio`` build on it.
"""
