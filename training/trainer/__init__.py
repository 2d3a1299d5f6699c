"""What stands around the trainers of TRL: arguments, callbacks, losses, references, processes."""
