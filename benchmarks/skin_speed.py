def table(*a): print('todo')
