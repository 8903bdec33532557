"""What benchmarks share: cases, who does them, how they are timed and checked, and the rows that say so."""
