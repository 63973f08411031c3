"""A local Hugging Face Hub: a real HTTP server that the real `huggingface_hub` clients work against. See README.md."""
