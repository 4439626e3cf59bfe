def policy_accuracy(*a):
    raise NotImplementedError
