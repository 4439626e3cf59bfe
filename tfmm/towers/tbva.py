def tbva(*a):
    raise NotImplementedError
