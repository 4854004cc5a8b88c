"""The buffer as one SQLite file: `buffer` opens it; a module for each face, and one for each table it keeps."""
