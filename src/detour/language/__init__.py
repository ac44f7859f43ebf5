"""What people are told, in their language: English in the code, German from one catalogue."""
