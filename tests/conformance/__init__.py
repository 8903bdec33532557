"""Every backend against the oracle: ``checks`` says what is asked of one, ``cases`` of what, ``test_*`` of whom."""
