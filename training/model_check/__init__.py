"""What can be known of a model before anything is started with it: facts, memory, time, and what each method can do."""
