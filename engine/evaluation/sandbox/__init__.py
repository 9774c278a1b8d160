"""Programs that a model wrote, run in a process of their own that can do little but compute.

:mod:`host` starts and watches the process. The other modules run inside it and need nothing but the standard library.
"""
