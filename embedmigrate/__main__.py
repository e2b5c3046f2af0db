from embedmigrate.cli import main

main()
