"""What a run of a verb leaves behind: who ran it, its phases, its report, and what the errors log gained meanwhile."""
