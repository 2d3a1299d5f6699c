"""Take a policy away: as a PEFT adapter, a merged model, a GGUF file for llama.cpp and Ollama, or a Hub repository.

``training.export.exporting.export_policy`` is the one entry. Every export is checked against the policy before it
appears.
"""
