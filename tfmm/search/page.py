def write(what, journal, path):
    path.write_text("")
