"""How published benchmarks write down, ask and mark their questions: one file and one line in the table each."""
