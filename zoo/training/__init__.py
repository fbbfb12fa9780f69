"""What training a run needs beside the module: rates, averages, processes, stored features."""
