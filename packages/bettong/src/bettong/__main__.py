from bettong.cli.main import main

main()
