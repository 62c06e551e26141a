"""Key/value cache: who owns which slot (torch-free) and the tensors behind the slots."""
